"""A stand-in for the Hugging Face hub on this machine, and models in it."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What a stand-in holds and was asked.

    ``models`` are files by name by model, ``refusals`` a status and a code by model. Where
    ``stall`` is set, half of each file is sent, ``half_sent`` is set, and the rest waits for ever.
    """

    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    stall: bool = False
    half_sent: threading.Event = field(default_factory=threading.Event)
    end: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def hold(self, model: str, state: dict[str, torch.Tensor], **config: Any) -> None:
        """Put a model there: its weights, and a config.json where there is anything to say."""
        self.models[model] = {"model.safetensors": save(state)}
        if config:
            self.models[model]["config.json"] = json.dumps(config).encode()

    def hold_torch(self, model: str, state: dict[str, torch.Tensor]) -> None:
        """Put weights there as torch writes them, and nothing else."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.models[model] = {"pytorch_model.bin": buffer.getvalue()}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, with_body: bool) -> None:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        model, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        hub.asked.append(f"{self.command} {self.path}")
        if model in hub.refusals:
            self._refuse(*hub.refusals[model])
        elif model not in hub.models:
            self._refuse(401, "RepoNotFound")
        elif revision not in {"main", _COMMIT}:
            self._refuse(404, "RevisionNotFound")
        elif name not in hub.models[model]:
            self._refuse(404, "EntryNotFound")
        else:
            content = hub.models[model][name]
            self.send_response(200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_body and hub.stall:
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                hub.half_sent.set()
                hub.end.wait()
            elif with_body:
                self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hub_server() -> Iterator[Hub]:
    """A hub that listens; processes are shown to it by ``HF_ENDPOINT``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(address=f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        hub.end.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def look_at(tmp_path, monkeypatch):
    """``look_at(address)``: this process asks there, with a cache that is cold at first."""
    from huggingface_hub import constants

    def look(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    for name in ("HF_HUB_CACHE", "HF_HOME", "TORCH_HOME"):
        folder = str(tmp_path / "cache" / name)
        monkeypatch.setenv(name, folder)
        if hasattr(constants, name):
            monkeypatch.setattr(constants, name, folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return look


@pytest.fixture
def hub(hub_server, look_at) -> Hub:
    """A hub that this process asks, with a cache that is cold at first."""
    look_at(hub_server.address)
    return hub_server


@pytest.fixture
def resnet() -> dict[str, torch.Tensor]:
    """Weights of test_resnet with its classifier, as the hub has them."""
    torch.manual_seed(5)
    return timm.create_model("test_resnet").state_dict()


@pytest.fixture
def vit() -> dict[str, torch.Tensor]:
    """Weights of test_vit with its classifier."""
    torch.manual_seed(6)
    return timm.create_model("test_vit").state_dict()
