"""``firsttoken stage``: what it collects, that it starts where it is meant for, and what it refuses."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from firsttoken.cli import main
from firsttoken.commands import stage_build
from firsttoken.commands.stage_build import MANIFEST, Report, build
from firsttoken.commands.stage_plan import PLATFORMS, Plan, checked, interpreter
from firsttoken.commands.stage_prune import prune
from firsttoken.errors import FirstTokenError

ROOT = Path(__file__).parents[2]
MOST = 60_000_000
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
TARGET = "3.13" if interpreter("3.13") else HERE
ENTRYPOINTS = {
    "aws": ("firsttoken.runtimes.aws", *[f"functions.aws.{n}" for n in ("chat", "recover", "scheduled")]),
    "gcp": ("main", "functions_framework._function_registry", "uvicorn", "google.auth"),
    "azure": ("function_app", "azure.data.tables.aio", "azure.identity.aio", "azure.storage.queue.aio"),
}  # fmt: skip
PROGRAM = """
import importlib, importlib._bootstrap_external as loading, sys
def source_to_code(loader, data, path, **options):
    if path.startswith(sys.argv[1]):
        sys.exit(f"{path} was compiled")
    return compiled(loader, data, path, **options)
compiled = loading.SourceLoader.source_to_code
loading.SourceLoader.source_to_code = source_to_code
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/.python_packages/lib/site-packages"]
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def _plan(cloud: str, out: Path, arch: str = "", *, vendored: bool = True) -> Plan:
    plan = Plan(platform=PLATFORMS[cloud], project=ROOT, out=out, python=TARGET, arch=arch, vendored=vendored)
    return checked(plan)


def _build(plan: Plan) -> Report:
    """A stage; without a way to the package index there is none."""
    try:
        return build(plan, lambda *_: None)
    except FirstTokenError as error:
        if any(
            word in str(error).lower() for word in ("error sending request", "dns error", "connect error")
        ):
            pytest.skip("the package index cannot be reached; the wheels of other platforms come from there")
        raise


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """Each cloud's stage for this machine's processor, and AWS's own for arm64."""
    folder = tmp_path_factory.mktemp("stages")
    here = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
    reports = {cloud: _build(_plan(cloud, folder / cloud)) for cloud in ("gcp", "azure")}
    reports["aws"] = _build(_plan("aws", folder / "aws", here))
    reports["aws, arm64"] = _build(_plan("aws", folder / "arm" / "aws"))
    return reports


@pytest.mark.parametrize("name", ["aws", "aws, arm64", "gcp", "azure"])
def test_every_module_is_compiled(built: dict[str, Report], name: str) -> None:
    """Each module lies beside its bytecode, which is trusted as it is."""
    folder = Path(built[name].folder)
    tag = f"cpython-{TARGET.replace('.', '')}"
    modules = list(folder.rglob("*.py"))
    compiled = [path.parent / "__pycache__" / f"{path.stem}.{tag}.pyc" for path in modules]
    assert len(modules) > 500
    assert not [path for path in compiled if not path.is_file()]
    assert {path.read_bytes()[4:8] for path in compiled} == {b"\1\0\0\0"}
    assert built[name].compiled
    assert built[name].not_compiled == []


@pytest.mark.parametrize("name", ["aws", "aws, arm64"])
def test_aws_is_small(built: dict[str, Report], name: str) -> None:
    """With all that Bedrock, DynamoDB, SQS and S3 need, and its bytecode, it has at most 60 MB."""
    report = built[name]
    assert (
        sum(path.stat().st_size for path in Path(report.folder).rglob("*") if path.is_file()) == report.bytes
    )
    assert report.bytes <= MOST
    data = Path(report.folder) / "botocore/data"
    assert {"bedrock-runtime", "dynamodb", "s3", "sqs", "sts"} <= {path.name for path in data.iterdir()}


@pytest.mark.parametrize("cloud", ENTRYPOINTS)
def test_it_starts_without_compiling(built: dict[str, Report], cloud: str, tmp_path: Path) -> None:
    """The entrypoints import what they need from the stage alone, and nothing is compiled for it."""
    if not (set(PLATFORMS[cloud].architectures) & {built[cloud].arch} and platform.system() == "Linux"):
        pytest.skip(f"the wheels for {cloud} do not run here; use Linux on x86_64")
    environ = {
        "PATH": os.environ["PATH"],
        "FIRSTTOKEN_KEYS": "acme:" + "0" * 64,
        "AWS_REGION": "eu-west-1",
        "HOME": str(tmp_path),
    }
    command = [interpreter(TARGET), "-I", "-S", "-B", "-c", PROGRAM, built[cloud].folder, *ENTRYPOINTS[cloud]]
    done = subprocess.run(
        command,
        cwd=built[cloud].folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_aws_clients_find_their_services(built: dict[str, Report], tmp_path: Path) -> None:
    """What was pruned is missed by no client that the gateway makes."""
    program = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import aioboto3, boto3, botocore.auth, botocore.session
async def clients():
    for name in ("dynamodb", "sqs", "s3"):
        async with aioboto3.Session().client(name, region_name="eu-west-1"):
            pass
asyncio.run(clients())
botocore.session.get_session().create_client("bedrock-runtime", region_name="eu-west-1")
"""
    if platform.system() != "Linux":
        pytest.skip("the wheels for Lambda do not run here; use Linux")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "x"}
    environ["AWS_SECRET_ACCESS_KEY"] = "x"
    command = [interpreter(TARGET), "-I", "-S", "-B", "-c", program, built["aws"].folder]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_archive_is_the_folder(built: dict[str, Report]) -> None:
    """The archive holds the same files, and the program that starts our runtime can be executed."""
    report = built["aws, arm64"]
    with zipfile.ZipFile(report.archive) as file:
        infos = {info.filename: info for info in file.infolist()}
    folder = Path(report.folder)
    assert set(infos) == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert infos["functions/aws/bootstrap"].external_attr >> 16 & 0o777 == 0o755
    assert infos["functions/aws/chat.py"].external_attr >> 16 & 0o777 == 0o644
    assert not [name for name in infos if "emulators" in name or "/tests/" in name or name.endswith(".yml")]


def test_same_input_same_bytes(built: dict[str, Report], tmp_path: Path) -> None:
    """A second stage elsewhere is the same, to the last byte of its archive."""
    again = _build(_plan("aws", tmp_path / "elsewhere"))
    assert again.digest == built["aws, arm64"].digest
    assert Path(again.archive).read_bytes() == Path(built["aws, arm64"].archive).read_bytes()


def test_manifest_names_what_is_in(built: dict[str, Report]) -> None:
    """The stage says which Python, processor and packages it was made of."""
    said = json.loads((Path(built["aws, arm64"].folder) / MANIFEST).read_text())
    assert (said["cloud"], said["python"], said["arch"], said["bytecode"]) == ("aws", TARGET, "arm64", True)
    assert f"boto3=={said['packages']['boto3']}" in (ROOT / "requirements/aws.txt").read_text()


def _run(*arguments: str, monkeypatch: pytest.MonkeyPatch, project: Path = ROOT) -> int:
    monkeypatch.chdir(project)
    return main(["stage", *arguments])


def test_remote_build_leaves_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the cloud installs packages itself, it gets the list of them, and the report is JSON."""
    out = tmp_path / "gcp"
    arguments = ["gcp", "--remote-build", "--json", "--python", TARGET, "--out", str(out)]
    assert _run(*arguments, monkeypatch=monkeypatch) == 0
    report = json.loads(capsys.readouterr().out)
    assert (out / "requirements.txt").is_file()
    assert not (out / "starlette").exists()
    assert (report["cloud"], report["archive"], report["fetched_bytes"]) == ("gcp", "", 0)


def test_table_adds_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """People see the parts, all of it, and where it lies."""
    out = str(tmp_path / "azure")
    arguments = ["azure", "--remote-build", "--python", TARGET, "--out", out]
    assert _run(*arguments, monkeypatch=monkeypatch) == 0
    printed, told = capsys.readouterr()
    assert "firsttoken" in printed
    assert f"{out}.zip" in printed
    assert "stage: compile" in told


def test_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stage above its limit is refused with its largest parts, and the last one stays."""
    arguments = ["gcp", "--remote-build", "--python", TARGET, "--out", str(tmp_path / "gcp")]
    assert _run(*arguments, monkeypatch=monkeypatch) == 0
    before = sorted(tmp_path.rglob("*"))
    assert _run(*arguments, "--max-mb", "0.5", monkeypatch=monkeypatch) == 1
    assert "expected at most 0.5. The largest parts, in MB: firsttoken" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gcp", "--arch", "arm64"], "--arch arm64: gcp expects x86_64"),
        (["aws", "--remote-build"], "--remote-build"),
        (["aws", "--extras", "nothing"], "nothing.txt"),
        (["aws", "--out", "functions"], "holds other files"),
        (["aws", "--out", "README.md"], "is a file"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option is one line that names it, and nothing is deleted."""
    assert _run(*arguments, monkeypatch=monkeypatch) == 2
    assert said in capsys.readouterr().err
    assert (ROOT / "functions/aws/chat.py").is_file()


def test_elsewhere_than_in_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a folder without functions it says what is missing."""
    assert _run("aws", monkeypatch=monkeypatch, project=tmp_path) == 2
    assert "functions/aws" in capsys.readouterr().err


def test_without_the_python_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytecode of another Python is of no use: the stage has none, and that is said."""
    monkeypatch.setattr(stage_build, "interpreter", lambda _version: "")
    out = tmp_path / "gcp"
    assert _run("gcp", "--remote-build", "--out", str(out), monkeypatch=monkeypatch) == 0
    assert "there is no Python 3.13 here" in capsys.readouterr().err
    assert not list(out.rglob("*.pyc"))
    assert json.loads((out / MANIFEST).read_text())["bytecode"] is False


def test_a_failed_fetch_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What uv says of a failure is shown, and nothing is left behind."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    assert _run("aws", "--out", str(tmp_path / "dist/aws"), monkeypatch=monkeypatch) == 1
    assert "uv could not fetch the packages" in capsys.readouterr().err
    assert list((tmp_path / "dist").iterdir()) == []


def test_what_cannot_be_compiled_is_named(tmp_path: Path) -> None:
    """A module that is no Python is reported, the others are compiled."""
    project = tmp_path / "project"
    (project / "functions/gcp").mkdir(parents=True)
    (project / "functions/gcp/main.py").write_text("x = 1\n")
    (project / "functions/gcp/broken.py").write_text("print 'x'\n")
    plan = _plan("gcp", tmp_path / "out", vendored=False)
    report = build(msgspec.structs.replace(plan, project=project), lambda *_: None)
    assert report.not_compiled == ["broken.py"]
    assert list((tmp_path / "out/__pycache__").glob("main.*.pyc"))


def test_pruning(tmp_path: Path) -> None:
    """Tests, stubs, C and other services go; licences, versions and entry points stay."""
    kept = [
        "a/__init__.py",
        "a/data.json",
        "a/testing/helper.py",
        "a-1.0.dist-info/METADATA",
        "a-1.0.dist-info/entry_points.txt",
        "a-1.0.dist-info/licenses/LICENSE",
        "botocore/data/endpoints.json",
        "botocore/data/sqs/2012-11-05/service-2.json.gz",
    ]
    gone = [
        "bin/program",
        "a/__init__.pyi",
        "a/fast.c",
        "a/tests/test_a.py",
        "a-1.0.dist-info/RECORD",
        "botocore/data/ec2/2016-11-15/service-2.json.gz",
        "botocore/data/sqs/2012-11-05/examples-1.json",
    ]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("Name: a\n\nA long description.\n")
    prune(tmp_path, ["sqs"])
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if not p.is_dir())
    assert left == sorted(kept)
    assert (tmp_path / "a-1.0.dist-info/METADATA").read_text() == "Name: a\n"
    assert not (tmp_path / "a/tests").exists()
