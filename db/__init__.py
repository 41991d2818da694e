"""What we add to PostgreSQL's driver and to Django's queries. It knows no models and no rules."""
