"""A Django application's, for the test that takes it over."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path


def index(_: HttpRequest) -> HttpResponse:
    return HttpResponse("the application")


urlpatterns = [path("", index)]
