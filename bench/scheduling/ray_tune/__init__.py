"""Runs trials at the same time on Ray Tune: as many as there are GPUs or, on a CPU, cores for them.

They run on this machine or on the nodes of an existing cluster. Ray only schedules. Points, identity, resuming, records
and tables are ours and need no Ray. A cluster's nodes need not see the results folder: the files of a record come back
through Ray.
"""

import os

# Both settings must precede the import of Ray. No call may start another Ray when ours has died. Ray may not end this
# process because its GCS is lost: ``health.RayWatch`` notices that sooner, and the driver reports it.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "3600")
