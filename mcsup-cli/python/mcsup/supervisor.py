"""The `mcsup` command in an interpreter without `site`. Internal: mcsup itself starts this file."""

import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import ExtensionFileLoader, FileFinder
from _imp import extension_suffixes

# No other module is imported from this file's folder. Python 3.10 has no `safe_path`.
if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]
folder = __file__.rpartition("/")[0]
spec = FileFinder(folder, (ExtensionFileLoader, extension_suffixes())).find_spec("mcsup._mcsup")
module = sys.modules[spec.name] = module_from_spec(spec)
spec.loader.exec_module(module)
if __name__ == "__main__":
    sys.exit(module.main(["mcsup", *sys.argv[1:]]))
