"""Downloads over https only, each checked against the hash in its name."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from mmengine.dist import barrier as dist_barrier
from mmengine.dist import get_rank, get_world_size
from torch.hub import get_dir

from lightvit_mm.errors import UserError
from lightvit_mm.files import whole_file

OFFLINE_HINT = (
    'Without a network, fetch it elsewhere and give its path (in our configs: --cfg-options '
    'model.backbone.init_cfg.checkpoint=FILE), or start from random weights on purpose '
    '(--cfg-options model.backbone.init_cfg=None)'
)
# PyTorch, OpenMMLab and others put the first digits of the SHA-256 into the names of releases.
NAMED_HASH = re.compile(r'-([0-9a-f]{8,64})\.\w+$')
CHUNK = 1 << 20
TIMEOUT = 60  # seconds without a byte


class CheckpointError(UserError):
    """A checkpoint file that cannot be fetched or read, or that is refused."""


class _HttpsRedirects(HTTPRedirectHandler):
    """urllib follows a redirect from https to http; this one does not."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def require_https(address: str) -> None:
    """Refuse addresses other than https.

    Raises:
        CheckpointError: the address is not https.
    """
    if not address.lower().startswith('https://'):
        raise CheckpointError(
            f'{address} is unprotected; use its https:// address, or download the file yourself'
        )


def fetch(address: str, name: str = '') -> Path:
    """Download a file into torch's hub cache, unless it is already there.

    Args:
        address: an https address.
        name: name of the file; if empty, the last part of the address.

    Returns:
        The file, whose SHA-256 begins with the hash in its name if it has one. Its name in the
        cache has a hash of the address too, since other sites use the same names.

    Raises:
        CheckpointError: the address is not https or cannot be fetched, or the file is cut short
            or does not match the hash.
    """
    require_https(address)
    try:
        path = PurePosixPath(name or urlsplit(address).path)
        of_address = hashlib.sha256(address.encode()).hexdigest()[:12]
    except ValueError as error:
        raise CheckpointError(f'{address} is not an address: {error}') from error
    name = path.name
    if name in ('', '.', '..'):
        raise CheckpointError(f'{address} names no file; give the address of a checkpoint')
    file = Path(get_dir()) / 'checkpoints' / f'{path.stem[:100]}.{of_address}{path.suffix[:20]}'
    if get_rank() == 0 and not file.is_file():
        _download(address, file, name)
    if get_world_size() > 1:
        dist_barrier()
        if not file.is_file():  # this is another machine than that of process 0
            _download(address, file, name)
    _check_hash(file, name, address)
    return file


def _download(address: str, file: Path, name: str) -> None:
    try:
        with whole_file(file, shared=True) as part:
            _stream(address, part)
            _check_hash(part, name, address)
    except HTTPError as error:
        raise CheckpointError(
            f'{address} answers {error.code} ({error.reason}); is the name right? {OFFLINE_HINT}'
        ) from error
    except (URLError, OSError, HTTPException, ValueError) as error:  # ValueError: bad addresses
        reason = getattr(error, 'reason', error)
        raise CheckpointError(
            f'{address} could not be fetched: {reason}. {OFFLINE_HINT}'
        ) from error


def _stream(address: str, file: Path) -> None:
    from rich.progress import DownloadColumn, Progress, TextColumn

    opener = build_opener(_HttpsRedirects)
    request = Request(address, headers={'User-Agent': 'lightvit_mm'})
    with opener.open(request, timeout=TIMEOUT) as response, open(file, 'wb') as out:
        size = int(response.headers.get('Content-Length') or 0)
        columns = (TextColumn('{task.description}'), *Progress.get_default_columns()[1:])
        with Progress(*columns, DownloadColumn(), disable=get_rank() > 0) as progress:
            task = progress.add_task(f'fetching {address}', total=size or None)
            while chunk := response.read(CHUNK):
                out.write(chunk)
                progress.advance(task, len(chunk))
            received = out.tell()
    if size and received != size:
        raise OSError(f'it ended after {received} of {size} bytes')


def _check_hash(file: Path, name: str, address: str) -> None:
    expected = NAMED_HASH.search(name)
    if expected is None:
        return
    digest = hashlib.sha256()
    with open(file, 'rb') as content:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
    if not digest.hexdigest().startswith(expected[1]):
        raise CheckpointError(
            f'{address} does not match the hash in its name: its SHA-256 begins with '
            f'{digest.hexdigest()[: len(expected[1])]}, not with {expected[1]}. It was not used. '
            f'Delete {file} if it exists, and check where the file comes from'
        )
