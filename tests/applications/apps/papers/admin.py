"""The model in the admin."""

from django.contrib import admin

from papers.models import Paper

admin.site.register(Paper)
