"""Files of bbolt, the database under etcd: written from sorted streams, read as sorted streams. Pure.

A file is pages: two meta pages (the valid one with the higher transaction number counts), a freelist, and B+ trees of
branch and leaf pages; a bucket is a tree whose root stands in a leaf of the tree above. Memory: a page per level.
"""

from appliance.bolt.pages import META_PAGES, PAGE_SIZE, is_bolt
from appliance.bolt.reading import Bucket, Reader
from appliance.bolt.writing import Tree, Writer

__all__ = ["META_PAGES", "PAGE_SIZE", "Bucket", "Reader", "Tree", "Writer", "is_bolt"]
