"""
A broker and a result backend of Celery in a folder: its Redis transport needs a newer client than arq allows.
"""

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem


class Channel(filesystem.Channel):
    """A channel whose messages appear in the folder once they are written, and not when their file is created."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override] # its bases differ
        folder = Path(self.data_folder_out)
        name = f"{time.monotonic_ns()}_{uuid4()}.{queue}.msg"
        partial = folder.parent / name
        partial.write_text(json.dumps(payload), encoding="utf-8")
        partial.replace(folder / name)


class Transport(filesystem.Transport):
    """The transport."""

    Channel = Channel


def file_settings(folder: Path) -> dict[str, Any]:
    """Return the settings of an application whose messages and results are files in a folder."""
    folders = {name: folder / name for name in ("messages", "control", "results", "processed")}
    for each in folders.values():
        each.mkdir(parents=True, exist_ok=True)
    return {
        "broker_url": "",
        "broker_transport": f"{__name__}:Transport",
        "broker_transport_options": {
            "data_folder_in": str(folders["messages"]),
            "data_folder_out": str(folders["messages"]),
            "control_folder": str(folders["control"]),
            "processed_folder": str(folders["processed"]),
            "store_processed": True,
            "polling_interval": 0.01,
        },
        "broker_connection_retry_on_startup": True,
        "result_backend": folders["results"].as_uri(),
    }
