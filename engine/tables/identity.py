"""Pseudonyms: HMAC-SHA256 of study and image UIDs under a key that stays at the site.

`study` is `HMAC(key, StudyInstanceUID)` and `image` is `HMAC(key, SOPInstanceUID)`, 64 hexadecimal digits; an image without a UID is named
by its content hash, and represents its own study. The same key gives the same names in every run, so results of a site can be joined;
without the key no one can try UIDs against them. The key is the text of MMCLIP_SITE_KEY, or of the file `mmclip/site.key` in the user's
configuration folder, which is made on first use and readable by its owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import OutputError, ReadError

KEY_VARIABLE = "MMCLIP_SITE_KEY"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z")
_HINT = f"a secret text of your own in {KEY_VARIABLE}"


def config_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The user's configuration folder (XDG), or None where the user has no home."""
    for variable, tail in (("XDG_CONFIG_HOME", ""), ("HOME", ".config")):
        base = environment.get(variable, "")
        if base and Path(base).is_absolute():
            return Path(base) / tail / "mmclip"
    return None


def site_key(environment: Mapping[str, str] = os.environ) -> bytes:
    """The site's key, made on first use.

    Raises:
        OutputError: there is no place to keep a new key.
        ReadError: the key file is there and cannot be read, or is empty.
    """
    given = environment.get(KEY_VARIABLE, "").strip()
    if given:
        return given.encode()
    folder = config_folder(environment)
    if folder is None:
        raise OutputError("no place to keep the site key", why="there is no home folder", hint=_HINT)
    path = folder / "site.key"
    try:
        return _read_key(path)
    except FileNotFoundError:
        pass
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh = folder / f".site.key.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
                stream.write(secrets.token_hex(32) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            # A link fails where the name is taken: of two first runs at once, one key wins and both read it.
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink(missing_ok=True)
        return _read_key(path)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        raise OutputError("cannot keep the site key in the configuration folder", why=why, hint=_HINT) from None


def _read_key(path: Path) -> bytes:
    try:
        text = path.read_bytes().strip()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else type(error).__name__
        raise ReadError("cannot read the site key", why=why, hint=_HINT) from None
    if not text:
        raise ReadError("the site key file is empty", hint=f"remove it, or {_HINT}")
    return text


@dataclass(frozen=True)
class Names:
    """Pseudonyms of studies and images.

    Args:
        key: the site's key.
        retain_uids: give valid UIDs as they are. A text that is no UID (letters, a path, a formula) is hashed all the same.
    """

    key: bytes = field(repr=False)
    retain_uids: bool = False

    def hashed(self, text: str) -> str:
        """HMAC-SHA256 of `text` under the site's key, 64 hexadecimal digits."""
        return hmac.new(self.key, text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    def of(self, uid: str) -> str:
        """The pseudonym of a UID, or of any other identifier of a study."""
        if self.retain_uids and len(uid) <= 64 and _UID.match(uid):
            return uid
        return self.hashed(uid)
