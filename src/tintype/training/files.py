"""The files of `tintype.files`, by the name that training knows them by."""

from tintype.files import (
    remove_folder,
    sha256,
    storage_errors,
    sync,
    whole_folder,
    write_text,
)

__all__ = ["remove_folder", "sha256", "storage_errors", "sync", "whole_folder", "write_text"]
