"""/virtual-machines/<pk>/, /operations/, /bulk/, /rollouts/, /maintenance/, /freezes/, /connections/, /decisions/, /updates/, /calendar/, /history/, /reports/"""

from django.urls import path, re_path

from updates.views import (
    attachment,
    bulk,
    calendar,
    connection,
    decision,
    freeze,
    history,
    operation,
    pending,
    report,
    rollout,
    settings,
    vm,
)

app_name = "updates"
urlpatterns = [
    # /virtual-machines/<pk>/
    path("virtual-machines/<int:pk>/", vm.overview, name="vm-overview"),
    path("virtual-machines/<int:pk>/activity/", vm.activity, name="activity"),
    path("virtual-machines/<int:pk>/remove/", vm.remove, name="remove"),
    path("virtual-machines/<int:pk>/updates/", vm.blade, name="blade"),
    path("virtual-machines/<int:pk>/updates/assess/", vm.assess, name="assess"),
    path("virtual-machines/<int:pk>/updates/install/", vm.install, name="install"),
    path("virtual-machines/<int:pk>/updates/rollback/", vm.rollback, name="rollback"),
    path("virtual-machines/<int:pk>/updates/restart/", vm.restart, name="restart"),
    path("virtual-machines/<int:pk>/updates/lift/", vm.lift, name="lift"),
    # /operations/
    path("virtual-machines/settings/", settings.settings_change, name="settings-change"),
    path("virtual-machines/<int:pk>/settings/apply/", settings.settings_apply, name="settings-apply"),
    path("virtual-machines/<int:pk>/settings/accept/", settings.settings_accept, name="settings-accept"),
    path("operations/ended/", operation.ended, name="ended"),
    path("operations/<uuid:pk>/", operation.detail, name="operation"),
    path("operations/<uuid:pk>/cancel/", operation.cancel, name="cancel"),
    # /bulk/
    path("bulk/", bulk.bulk_create, name="bulk-create"),
    path("bulk/retry/", bulk.bulk_retry, name="bulk-retry"),
    path("bulk/<uuid:pk>/", bulk.bulk_detail, name="bulk"),
    path("bulk/<uuid:pk>/cancel/", bulk.bulk_cancel, name="bulk-cancel"),
    # /rollouts/, /maintenance/
    path("rollouts/", rollout.rollout_list, name="rollouts"),
    path("rollouts/<uuid:pk>/", rollout.rollout_detail, name="rollout"),
    path("rollouts/<uuid:pk>/move/", rollout.rollout_move, name="rollout-move"),
    path("maintenance/", rollout.maintenance_list, name="maintenances"),
    path("maintenance/create/", rollout.maintenance_create, name="maintenance-create"),
    path("maintenance/attach/", attachment.maintenance_attach, name="maintenance-attach"),
    path("maintenance/<int:pk>/edit/", rollout.maintenance_edit, name="maintenance-edit"),
    path("maintenance/<int:pk>/remove/", rollout.maintenance_remove, name="maintenance-remove"),
    path("maintenance/<int:pk>/", rollout.maintenance_detail, name="maintenance"),
    # /freezes/
    path("freezes/", freeze.freeze_list, name="freezes"),
    path("freezes/create/", freeze.freeze_create, name="freeze-create"),
    path("freezes/<int:pk>/", freeze.freeze_detail, name="freeze"),
    path("freezes/<int:pk>/edit/", freeze.freeze_edit, name="freeze-edit"),
    path("freezes/<int:pk>/end/", freeze.freeze_end, name="freeze-end"),
    path("freezes/<int:pk>/exceptions/", freeze.exception_create, name="exception-create"),
    path("freezes/<int:pk>/exceptions/<int:exception>/end/", freeze.exception_end, name="exception-end"),
    # /connections/
    path("connections/", connection.connection_list, name="connections"),
    path("connections/create/", connection.connection_create, name="connection-create"),
    path("connections/<int:pk>/", connection.connection_detail, name="connection"),
    path("connections/<int:pk>/pause/", connection.connection_pause, name="connection-pause"),
    path("connections/<int:pk>/test/", connection.connection_test, name="connection-test"),
    path("connections/<int:pk>/misfortune/", connection.connection_misfortune, name="connection-misfortune"),
    # /decisions/
    path("decisions/", decision.decisions, name="decisions"),
    # /updates/
    path("updates/", pending.pending, name="pending"),
    path("updates/export/", pending.pending_export, name="pending-export"),
    re_path(r"^updates/kb/(?P<kb_number>[0-9]{4,10})/$", pending.kb, name="kb"),
    # /calendar/
    path("calendar/", calendar.calendar, name="calendar"),
    path("calendar/sample/", calendar.sample, name="calendar-sample"),
    # /history/
    path("history/", history.history, name="history"),
    path("history/runs/", history.history_runs, name="history-runs"),
    path("history/export/", history.history_export, name="history-export"),
    path("history/codes/", history.history_codes, name="history-codes"),
    # /reports/
    path("reports/", report.report, name="report"),
    path("reports/machines/", report.report_machines, name="report-machines"),
    path("reports/export/", report.report_export, name="report-export"),
]
