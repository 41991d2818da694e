"""/preferences/, /accounts/, /activity/, /access/ and /waiting/"""

from allauth.account import views as account
from django.urls import path

from people import views

urlpatterns = [
    # /preferences/
    path("preferences/", views.set_preferences, name="set-preferences"),
    # /accounts/ (nobody signs up by themselves; passwords are reset by an administrator)
    path("accounts/", views.account, name="account"),
    path("accounts/mail/", views.set_mail, name="set-mail"),
    path("accounts/sessions/end/", views.sessions_end, name="sessions-end"),
    path("accounts/login/", account.login, name="account_login"),
    path("accounts/logout/", account.logout, name="account_logout"),
    path("accounts/password/change/", account.password_change, name="account_change_password"),
    path("accounts/password/set/", account.password_set, name="account_set_password"),
    # /activity/
    path("activity/", views.activity, name="activity"),
    path("activity/export/", views.activity_export, name="activity-export"),
    # /waiting/
    path("waiting/", views.waiting, name="waiting"),
    path("waiting/<uuid:pk>/seen/", views.waiting_seen, name="waiting-seen"),
    # /access/
    path("access/", views.access, name="access"),
    path("access/give/", views.access_give, name="access-give"),
    path("access/<int:pk>/take/", views.access_take, name="access-take"),
    path("access/check/", views.access_check, name="access-check"),
]
