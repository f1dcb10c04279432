"""The command line: serve, sim, chaos, load, bench, invoke, cache, jobs, worker, new, stage, models, ..."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from firsttoken import __version__
from firsttoken.commands import bench, cache, check, jobs, load, models, new, place, stage, worker
from firsttoken.errors import ConfigError, FirstTokenError

CLOUDS = ("aws", "gcp", "azure")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 for a wrong configuration or argument."""
    parsed = _parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except ConfigError as error:
        print(f"firsttoken: {error}", file=sys.stderr)
        return 2
    except FirstTokenError as error:
        print(f"firsttoken: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="firsttoken", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the chat endpoint on this machine")
    _address(serve, 8080)
    serve.add_argument("--cloud", choices=CLOUDS, help="serve through this cloud's real runtime")
    serve.set_defaults(run=_serve)

    sim = commands.add_parser("sim", help="run the simulated provider as a process of its own")
    _address(sim, 8081)
    sim.add_argument("--profile", default="", help="for example 'ttft_ms=50, itl_ms=10, tokens=64'")
    sim.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="NAME=PROFILE",
        help="a region below /regions/NAME with a profile of its own; may be given again",
    )
    sim.set_defaults(run=_sim)

    chaos = commands.add_parser("chaos", help="break targets under load and see what the clients notice")
    chaos.add_argument("scenario", nargs="?", default="", help="a TOML file, or a name from --list")
    chaos.add_argument("--list", action="store_true", help="list the scenarios that come with the package")
    chaos.add_argument("--url", default="", help="load this gateway instead of starting one")
    chaos.add_argument("--json", type=Path, metavar="FILE", help="write the whole report there")
    chaos.add_argument("--seed", type=int, help="of the load; the same seed sends the same requests")
    chaos.add_argument("--duration", type=_positive, metavar="S", help="seconds; faults are scaled with it")
    chaos.add_argument("--rate", type=_positive, metavar="RPS", help="requests a second")
    chaos.set_defaults(run=_chaos)

    invoke = commands.add_parser("invoke", help="run an event file through a cloud's real runtime")
    invoke.add_argument("cloud", choices=CLOUDS)
    invoke.add_argument("event", type=Path, help="for example events/aws/chat.stream.json")
    invoke.set_defaults(run=_invoke)

    for command in (cache, jobs, worker, new, stage, models, place, check, bench, load):
        command.register(commands)

    key = commands.add_parser("key", help="make an API key for a tenant")
    key.add_argument("tenant")
    key.set_defaults(run=_key)
    return parser


def _address(parser: argparse.ArgumentParser, port: int) -> None:
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=port, help="0 takes a free one (default %(default)s)")


def _positive(value: str) -> float:
    number = float(value)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {value}")
    return number


def _serve(parsed: argparse.Namespace) -> int:
    from firsttoken.runtimes import local

    if parsed.cloud:
        _keep_settings()
        if local.is_loopback(parsed.host):
            os.environ.setdefault("FIRSTTOKEN_AUTH", "off")
        return int(import_module(f"firsttoken.emulators.{parsed.cloud}").serve(parsed.host, parsed.port))
    from firsttoken import config
    from firsttoken.app import create_app

    # What lives on a machine with a disk keeps its state in a file; a function's disk is gone with it.
    settings = config.load(store="sqlite", queue="sqlite")
    app = create_app(settings, deployed=not local.is_loopback(parsed.host))
    models = ", ".join(sorted(app.gateway.routes))
    ready = f"firsttoken serves {{url}}/v1 (models: {models})"
    return local.serve(app, parsed.host, parsed.port, ready=ready, beside=worker.beside(app.gateway))


def _sim(parsed: argparse.Namespace) -> int:
    from firsttoken.runtimes import local
    from firsttoken.runtimes.simulator import SimulatorApp
    from firsttoken.settings import SimulatedProvider
    from firsttoken.simulator.profile import Profile

    regions = {name: spec for name, _, spec in (pair.partition("=") for pair in parsed.region)}
    for option, spec in [("--profile", parsed.profile), *(("--region", one) for one in regions.values())]:
        try:
            Profile().changed(spec)
        except FirstTokenError as error:
            raise ConfigError(f"{option}: {error}") from error
    app = SimulatorApp(SimulatedProvider(profile=parsed.profile), regions)
    ready = "firsttoken simulates a provider at {url}/v1 (simulated models only)"
    return local.serve(app, parsed.host, parsed.port, ready=ready, http=local.DroppableProtocol)


def _chaos(parsed: argparse.Namespace) -> int:
    from firsttoken.bench import command

    return command.run(parsed)


def _invoke(parsed: argparse.Namespace) -> int:
    import asyncio

    import msgspec

    try:
        event = msgspec.json.decode(parsed.event.read_bytes())
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{parsed.event}: expected a JSON event file: {error}") from error
    from firsttoken.emulators import files

    _keep_settings()
    os.environ.setdefault("FIRSTTOKEN_AUTH", "off")
    os.environ.update(files())  # the event may be a queued call
    emulator = import_module(f"firsttoken.emulators.{parsed.cloud}")

    async def stream() -> None:
        async for piece in emulator.invoke(event):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()

    asyncio.run(stream())
    return 0


def _keep_settings() -> None:
    """Have a cloud's runtime read the settings of this folder, wherever its functions are."""
    file = Path("firsttoken.toml")
    if file.is_file():
        os.environ.setdefault("FIRSTTOKEN_CONFIG", str(file.resolve()))


def _key(parsed: argparse.Namespace) -> int:
    import secrets

    from firsttoken.auth import digest

    key = f"ft-{secrets.token_urlsafe(32)}"
    print(f"key (give it to the client, it is shown once): {key}")
    print(f"configuration: FIRSTTOKEN_KEYS={parsed.tenant}:{digest(key)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
