"""What ``firsttoken check`` looks at: a project's settings, its files, and what its infrastructure sets."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from firsttoken import config
from firsttoken.errors import ConfigError
from firsttoken.settings import Settings

CONFIG = "firsttoken.toml"
CLOUDS = ("aws", "gcp", "azure")
_FILES = 5_000
_BYTES = 1_000_000
_SKIPPED = ("node_modules", "__pycache__", "dist", "build", "venv")
_NOT_DEPLOYED = {"tests", "templates", "docs", "benchmarks", "scripts", "requirements", "events"}
_INFRASTRUCTURE = {
    "aws": (
        *("serverless.yml", "serverless.yaml", "template.yml", "template.yaml"),
        *("functions/aws/*.yml", "functions/aws/*.yaml"),
    ),
    "gcp": ("*.tf", "*.tfvars", "service.yaml", "functions/gcp/*.yaml", "functions/gcp/*.yml"),
    "azure": ("*.bicep", "*.parameters.json", "host.json", "*/host.json"),
}
"""Files that say what is deployed, as patterns; a star also stands for folders."""
_SHORT = {"auth.mode": "FIRSTTOKEN_AUTH", "auth.keys": "FIRSTTOKEN_KEYS"}
_PLAIN = re.compile(r"['\"]?\s*(?::|=|,\s*value\s*[:=])\s*['\"]?([\w.-]+)['\"]?\s*(?:[,}#]|//|$)")


class Value(Struct, frozen=True):
    """A setting as one cloud's deployment has it."""

    cloud: str
    """Empty where there is no deployment."""
    value: Any
    """None where it is not set, an empty text where it is set to what is only known when deploying."""
    where: str

    def __str__(self) -> str:
        """Return it as evidence."""
        return f"{self.cloud}: {self.where}" if self.cloud else self.where


class Project(Struct, frozen=True, kw_only=True):
    """One folder. Files are read when a rule asks for them, and not kept."""

    root: Path
    now: float
    """Seconds since 1970."""
    max_age: float = 90 * 86_400.0
    """Seconds after which a result is old."""
    files: tuple[str, ...]
    """Names of at most 5,000 files, relative to the root, without what .gitignore leaves out by name."""
    cut: bool = False
    """Whether there are more."""
    settings: Settings = Settings()
    """The defaults where there is no file, or none that can be read."""
    tree: dict[str, Any] = {}
    """What the file says."""
    problem: str = ""
    """Why the file cannot be read; empty where it can, or where there is none."""

    @property
    def configured(self) -> bool:
        """Whether there is a firsttoken.toml."""
        return CONFIG in self.files

    def clouds(self) -> tuple[str, ...]:
        """Return the clouds that it has functions or infrastructure for."""
        return tuple(
            cloud
            for cloud in CLOUDS
            if self.infrastructure(cloud)
            or any(name.startswith(f"functions/{cloud}/") for name in self.files)
        )

    def infrastructure(self, cloud: str) -> list[str]:
        """Return the names of the files that say what is deployed there."""
        return [
            name
            for name in self.files
            if not _NOT_DEPLOYED.intersection(PurePosixPath(name).parts)
            and any(fnmatch(name, pattern) for pattern in _INFRASTRUCTURE[cloud])
        ]

    def entrypoints(self, cloud: str) -> list[str]:
        """Return the names of the modules of its functions."""
        return [name for name in self.files if fnmatch(name, f"functions/{cloud}/*.py")]

    def text(self, name: str) -> str:
        """Return a file's text; empty where it has none, or over a megabyte of it."""
        path = self.root / name
        try:
            return path.read_text("utf-8") if path.stat().st_size <= _BYTES else ""
        except (OSError, UnicodeDecodeError):
            return ""

    def mentions(self, names: list[str], word: str) -> str:
        """Return where a word stands first, comments aside: ``file:line``, or empty."""
        for name in names:
            if found := next(lines(self.text(name), word), None):
                return f"{name}:{found[0]}"
        return ""

    def said(self, key: str) -> bool:
        """Return whether the file has a setting, for example ``cache.mode``."""
        node: Any = self.tree
        for part in key.split("."):
            if not isinstance(node, dict) or part not in node:
                return False
            node = node[part]
        return True

    def at(self, section: str, key: str = "") -> str:
        """Return where a section of the file stands, or one of its keys: ``file:line``."""
        line = _line(self.text(CONFIG).splitlines(), section, key)
        return f"{CONFIG}:{line}" if line else CONFIG

    def in_force(self, key: str) -> list[Value]:
        """Return a setting as every deployment has it: its variable, else the file, else the default."""
        section, _, name = key.rpartition(".")
        node: Any = self.settings
        for part in key.split("."):
            node = getattr(node, part, None)
        if name == "kind":
            found = getattr(self.settings, section)
            node = None if found is None else found.__struct_config__.tag
        node = None if node in ("", {}) else node
        where = (
            f"{self.at(section, name)} {key} = {node!r}" if self.said(key) else f"{key} = {node!r} by default"
        )
        own = f"{key} is not set" if node is None else where
        return [
            self._variable(cloud, key) or Value(cloud, node, own) for cloud in self.clouds()
        ] or [Value("", node, own)]  # fmt: skip

    def _variable(self, cloud: str, key: str) -> Value | None:
        names = [f"FIRSTTOKEN_{key.upper().replace('.', '__')}", *filter(None, [_SHORT.get(key)])]
        for file in self.infrastructure(cloud):
            text = self.text(file)
            for name in names:
                for number, rest in lines(text, name):
                    plain = _PLAIN.match(rest)
                    value = plain[1] if plain else ""
                    return Value(cloud, value, f"{file}:{number} {name}" + (f" = {value}" if value else ""))
        return None


def read(root: Path, now: float, max_age: float = 90 * 86_400.0) -> Project:
    """Read a folder; takes time as its files do. Raises ConfigError where it is none.

    The variables of this process are not looked at: they are those of a machine, not of the project.
    """
    if not root.is_dir():
        raise ConfigError(f"{root}: there is no such folder; expected that of a project")
    names = _names(root)
    project = Project(
        root=root, now=now, max_age=max_age, files=tuple(names[:_FILES]), cut=len(names) > _FILES
    )
    file = root / CONFIG
    if not file.is_file():
        return project
    try:
        settings = config.load(file, {})
        return replace(project, settings=settings, tree=tomllib.loads(file.read_text("utf-8")))
    except ConfigError as error:
        return replace(project, problem=str(error).replace(str(file), CONFIG))


def _names(root: Path) -> list[str]:
    """Return names in order, one more than are wanted where there are so many."""
    anywhere, at_top = _ignored(root)
    found: list[str] = []
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        patterns = (*anywhere, *(at_top if place == root else ()))

        def kept(name: str, patterns: tuple[str, ...] = patterns) -> bool:
            return not any(fnmatch(name, pattern) for pattern in patterns)

        folders[:] = sorted(
            name
            for name in folders
            if kept(name) and name not in _SKIPPED and (name == ".github" or not name.startswith("."))
        )
        found += [(place / name).relative_to(root).as_posix() for name in sorted(files) if kept(name)]
        if len(found) > _FILES:
            break
    return found[: _FILES + 1]


def _ignored(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that .gitignore leaves out everywhere and at the top; paths in it are not followed."""
    try:
        said = [line.strip() for line in (root / ".gitignore").read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        return (), ()
    patterns = [line.rstrip("/") for line in said if line and line[0] not in "#!"]
    anywhere = tuple(one for one in patterns if "/" not in one)
    return anywhere, tuple(one[1:] for one in patterns if one.startswith("/") and "/" not in one[1:])


def lines(text: str, word: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with a whole word, comments and imports aside: their number, and what follows it."""
    if word not in text:
        return
    pattern = re.compile(rf"(?<![\w]){re.escape(word)}(?!\w)")
    for number, line in enumerate(text.splitlines(), 1):
        found = pattern.search(line)
        if found and not line.lstrip().startswith(("#", "//", "from ", "import ")):
            yield number, line[found.end() :]


def _line(text: list[str], section: str, key: str) -> int:
    """Return the number of the line of a section or a key in TOML; that of its section, or 0, without one."""
    current, best = "", 0
    for number, line in enumerate(text, 1):
        said = line.split("#")[0].strip()
        if said.startswith("["):
            current = re.sub(r"[\[\]\"']|\s", "", said)
            best = number if current == section and not best else best
        name = re.sub(r"[\"'\s]", "", said.split("=")[0]) if "=" in said else ""
        if name and key and ".".join(filter(None, (current, name))) == f"{section}.{key}":
            return number
    return best
