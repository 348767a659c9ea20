"""One model."""

from django.db import models


class Paper(models.Model):
    """A title and a file."""

    title = models.CharField(max_length=100)
    file = models.FileField(upload_to="papers")
