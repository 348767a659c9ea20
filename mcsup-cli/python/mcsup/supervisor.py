"""The `mcsup` command in an interpreter without `site`, as which mcsup starts this file. It is no interface."""

import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import ExtensionFileLoader, FileFinder
from _imp import extension_suffixes

# Nothing but `sys.path` is left to find modules by, and the first of it is this folder.
folder = __file__.rpartition("/")[0]
if sys.path[:1] == [folder]:
    del sys.path[0]
spec = FileFinder(folder, (ExtensionFileLoader, extension_suffixes())).find_spec("mcsup._mcsup")
module = sys.modules[spec.name] = module_from_spec(spec)
spec.loader.exec_module(module)
if __name__ == "__main__":
    sys.exit(module.main(["mcsup", *sys.argv[1:]]))
