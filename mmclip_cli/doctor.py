"""`mmclip doctor`: versions, device, memory and models, for bug reports."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from pathlib import Path

import typer

from mmclip_cli import console
from mmclip_cli.options import Json

EXAMPLES = ("mmclip doctor", "mmclip doctor --json")


def command(json: Json = False) -> None:
    """Show versions, device and models, and report problems."""
    from importlib import metadata

    packages, amiss = _packages()
    facts: dict[str, object] = {
        "mmclip": metadata.version("mmclip"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        **_device(amiss),
        "worker_processes": _workers(amiss),
        **_models(amiss),
        "scispacy_models": sorted(_scispacy_models()),
        "site_key": _site_key(),
        "packages": packages,
        "amiss": amiss,
    }
    if json:
        console.say_json(facts)
    else:
        console.table(["what", "found"], [[name.replace("_", " "), _text(value)] for name, value in facts.items() if name != "packages"])
        console.say("")
        console.table(["package", "version"], [[*each] for each in packages.items()])
    raise typer.Exit(1 if amiss else 0)


def _packages() -> tuple[dict[str, str | None], list[str]]:
    """Version of each required package (None: not installed), and problems: missing packages or versions out of range."""
    from importlib import metadata

    from packaging.requirements import Requirement

    versions: dict[str, str | None] = {}
    amiss = []
    for text in metadata.requires("mmclip") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            versions[requirement.name] = None
            amiss.append(f"{requirement.name} is not installed")
            continue
        versions[requirement.name] = version
        if not requirement.specifier.contains(version, prereleases=True):
            amiss.append(f"{requirement.name} is {version}, wanted {requirement.specifier}")
    return dict(sorted(versions.items())), amiss


def _device(amiss: list[str]) -> dict[str, object]:
    try:
        import torch
    except Exception as error:
        amiss.append(f"torch cannot be imported ({type(error).__name__})")
        return {"device": None}
    if not torch.cuda.is_available():
        return {"device": "cpu", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {"device": f"cuda: {properties.name}, {properties.total_memory / 2**30:.0f} GiB", "gpus": torch.cuda.device_count()}


def _workers(amiss: list[str]) -> str:
    """Whether worker processes start: one reads a file that is not DICOM."""
    from engine.errors import EngineError
    from engine.intake.workers import read_files

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "no.dcm"
        path.write_bytes(b"no DICOM")
        try:
            (reading,) = read_files([path], size=32, workers=1)
            if reading.reason in ("decode_crash", "decode_timeout", "resource_limit"):
                amiss.append(f"a worker process cannot read a file of 8 bytes: {reading.reason}")
        except EngineError as error:
            amiss.append(str(error))
            return "do not start"
    return "start and answer"


def _models(amiss: list[str]) -> dict[str, object]:
    from engine.errors import ModelError
    from engine.model.bundle import shipped_models
    from engine.model.bundle_folder import describe

    found = {}
    for name in shipped_models():
        try:
            found[name] = describe(name).content_hash
        except ModelError as error:
            amiss.append(str(error))
    return {"models": found}


def _site_key() -> str:
    """Where the site key comes from; the key itself is never read."""
    from engine.tables.identity import KEY_VARIABLE, config_folder

    if os.environ.get(KEY_VARIABLE, "").strip():
        return f"given in {KEY_VARIABLE}"
    folder = config_folder()
    if folder is None:
        return f"nowhere: there is no home folder, and {KEY_VARIABLE} is not set"
    return (
        "in the configuration folder"
        if (folder / "site.key").is_file()
        else "not made yet; the first run makes one in the configuration folder"
    )


def _memory_gib() -> float | None:
    """Memory of the machine or of this container, whichever is smaller; GiB."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (ValueError, OSError, AttributeError):
        return None
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:  # noqa: PTH123 - one number from the kernel
            found += [int(each) for each in re.findall(r"^\d+$", file.read(), re.M)]
    except OSError:
        pass
    return round(min(found) / 2**30, 1)


def _scispacy_models() -> list[str]:
    """Installed scispaCy pipelines, with their versions."""
    from importlib import metadata

    points = metadata.entry_points(group="spacy_models")
    return [f"{each.name} {each.dist.version if each.dist else ''}".strip() for each in points if re.match("en_(core_sci|ner)_", each.name)]


def _text(value: object) -> object:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items()) or "none"
    return value
