"""/tour/…"""

from django.urls import path

from demo import tour

urlpatterns = [
    path("", tour.tour, name="tour"),
    path("reset/", tour.demo_reset, name="demo-reset"),
]
