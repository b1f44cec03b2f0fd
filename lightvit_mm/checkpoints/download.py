"""Downloads over https alone, each checked against the hash that its name carries."""

from __future__ import annotations

import hashlib
import re
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
# As PyTorch, OpenMMLab and others name released files: the first digits of their SHA-256.
NAMED_HASH = re.compile(r'-([0-9a-f]{8,64})\.\w+$')
CHUNK = 1 << 20


class CheckpointError(UserError):
    """A checkpoint file that cannot be fetched or read, or must not be."""


class _HttpsRedirects(HTTPRedirectHandler):
    """urllib follows a redirect from https to http; this one does not."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        require_https(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def require_https(address: str) -> None:
    """Refuse every address but an https one.

    Raises:
        CheckpointError: the address is another.
    """
    if not address.lower().startswith('https://'):
        raise CheckpointError(
            f'{address} would come unprotected; use its https:// address, or download it yourself'
        )


def fetch(address: str, name: str = '') -> Path:
    """Download a file into torch's hub cache, unless it is there.

    Args:
        address: an https address.
        name: what the file is called in the cache; the last part of the address if empty.

    Returns:
        The file, whose SHA-256 begins with the hash in its name if it has one.

    Raises:
        CheckpointError: it cannot be fetched, would come unprotected, is cut short, or is not
            the file of that hash.
    """
    require_https(address)
    name = name or PurePosixPath(urlsplit(address).path).name
    file = Path(get_dir()) / 'checkpoints' / name
    if get_rank() == 0 and not file.is_file():
        _download(address, file)
    if get_world_size() > 1:
        dist_barrier()
        if not file.is_file():  # on another machine than that of process 0
            _download(address, file)
    _check_hash(file, file.name, address)
    return file


def _download(address: str, file: Path) -> None:
    try:
        with whole_file(file, shared=True) as part:
            _stream(address, part)
            _check_hash(part, file.name, address)
    except HTTPError as error:
        raise CheckpointError(
            f'{address} answers {error.code} ({error.reason}); is the name right? {OFFLINE_HINT}'
        ) from error
    except (URLError, OSError) as error:
        reason = getattr(error, 'reason', error)
        raise CheckpointError(
            f'{address} could not be fetched: {reason}. {OFFLINE_HINT}'
        ) from error


def _stream(address: str, file: Path) -> None:
    from rich.progress import DownloadColumn, Progress, TextColumn

    opener = build_opener(_HttpsRedirects)
    request = Request(address, headers={'User-Agent': 'lightvit_mm'})
    with opener.open(request) as response, open(file, 'wb') as out:
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
            f'{address} is not the file that its name promises: SHA-256 begins with '
            f'{digest.hexdigest()[: len(expected[1])]}, not with {expected[1]}. Nothing of it was '
            f'used. Delete {file} if it is there, and ask where the file comes from'
        )
