"""The call in Java that docs/clients.md shows, as it is printed there, against a real stack."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.end_to_end.clients.documented import blocks, commands, run
from tests.end_to_end.processes import Stack

pytestmark = pytest.mark.timeout(600)

DEBIAN = Path("/usr/share/java")
JARS = (
    "grpc-api", "grpc-context", "grpc-core", "grpc-netty", "grpc-protobuf", "grpc-protobuf-lite", "grpc-stub",
    "protobuf", "guava", "perfmark-api", "geronimo-annotation-1.3-spec",
    "netty-buffer", "netty-codec", "netty-codec-http", "netty-codec-http2", "netty-common", "netty-handler",
    "netty-resolver", "netty-transport", "netty-transport-native-unix-common",
)  # fmt: skip
PACKAGES = "protobuf-compiler-grpc-java-plugin libgrpc-java libnetty-java libperfmark-java libprotobuf-java"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the contracts and Debian's jars; the plugin is Debian's, too."""
    jars = [DEBIAN / f"{name}.jar" for name in JARS]
    programs = {name: shutil.which(name) for name in ("javac", "java", "protoc", "grpc_java_plugin")}
    missing = [name for name, path in programs.items() if path is None]
    missing += [jar.name for jar in jars if not jar.exists()]
    if missing:
        pytest.skip(f"no {', '.join(missing[:3])}; Debian: a JDK, protobuf-compiler, {PACKAGES}")
    (tmp_path / "jars").mkdir()
    for jar in jars:
        (tmp_path / "jars" / jar.name).symlink_to(jar)
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    return tmp_path


def test_the_example_in_java_is_compiled_and_answered(project: Path, running: Stack) -> None:
    generate, compile_, call = commands("Java")
    (example,) = blocks("java")
    host, _, port = running.frontend.address.rpartition(":")
    (project / "Caller.java").write_text(example.replace('"127.0.0.1", 51001', f'"{host}", {port}'))

    run(generate.replace("PLUGIN", shutil.which("grpc_java_plugin") or ""), project)
    run(compile_, project)

    label, score = run(call, project).split()
    assert label == "timer"
    assert float(score) > 0.99
