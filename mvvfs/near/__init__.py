"""Pages of distant stores kept on this machine's disk (`cache_dir`): `file` holds them, `cache` knows when
one may be served."""

from mvvfs.near.cache import NearCache, fill
from mvvfs.near.file import KeptDatabase, PageFile, open_file

__all__ = ["KeptDatabase", "NearCache", "PageFile", "fill", "open_file"]
