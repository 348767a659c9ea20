"""A Django application with a file to upload."""
