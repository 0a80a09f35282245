"""Workers are forked from a process that has loaded NetBox, as in netbox-docker's nginx unit: loading it computes for seconds each time."""
import os

chdir = "/opt/netbox/netbox"
bind = os.environ.get("NETBOX_BIND", "0.0.0.0:8080")
workers = int(os.environ.get("NETBOX_WORKERS", "2"))
threads = int(os.environ.get("NETBOX_THREADS", "4"))
timeout = 120
# Longer than any client keeps a connection: with gunicorn's 2 s it closed some just when a request came, and a VM was lost.
keepalive = int(os.environ.get("NETBOX_KEEPALIVE", "75"))
accesslog = "-"
access_log_format = '%(t)s %(h)s "%(r)s" %(s)s %(b)sB %(L)ss'
preload_app = True


def when_ready(server):
    # The workers are forked next; a connection must not be shared by two processes.
    from django.db import connections
    connections.close_all()
