"""What NetBox needs before it serves: a database that answers, its migrations, the superuser. The names of variables are netbox-docker's.

In one process, since each program that loads Django computes for seconds: `launch-netbox.sh` calls it in the server's own, everything else
by `docker-entrypoint.sh`."""
import os, sys, time


def wait_for_database(patience_s=120):
    import psycopg
    e = os.environ
    for second in range(patience_s):
        try:
            return psycopg.connect(host=e["DB_HOST"], dbname=e["DB_NAME"], user=e["DB_USER"], password=e["DB_PASSWORD"], connect_timeout=3).close()
        except psycopg.OperationalError as error:
            if second == patience_s - 1:
                raise
            if e.get("DB_WAIT_DEBUG", "0") == "1":
                print(str(error).strip().splitlines()[-1], flush=True)
        time.sleep(1)


def migrate():
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor
    began = time.monotonic()
    # As netbox-docker: with nothing to do, `migrate` itself takes twice as long as finding that out.
    executor = MigrationExecutor(connection)
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        call_command("migrate", interactive=False, verbosity=int(os.environ.get("MIGRATE_VERBOSITY", "0")), skip_checks=False)
    print(f"migrate: {time.monotonic() - began:.0f}s", flush=True)


def make_superuser():
    from users.models import User
    name = os.environ["SUPERUSER_NAME"]
    if not User.objects.filter(username=name).exists():
        User.objects.create_superuser(name, os.environ.get("SUPERUSER_EMAIL", ""), os.environ.get("SUPERUSER_PASSWORD", "admin"))
        print("superuser", name, flush=True)


def prepare():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "netbox.settings")
    wait_for_database()
    import django
    django.setup()
    if os.environ.get("SKIP_MIGRATE", "0") != "1":
        migrate()
    if os.environ.get("SUPERUSER_NAME") and os.environ.get("SKIP_SUPERUSER", "false") != "true":
        make_superuser()


if __name__ == "__main__":
    sys.argv[0] = "manage.py"  # which plugins look at
    prepare()
