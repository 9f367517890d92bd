"""Photos from files, folders, pictures, arrays and tensors, and their way to a model's input.

`open_photo` reads one photo, `iterate_photos` many, one after the other, `to_batch` makes them what
a model takes, and `Preprocessing` says how; `as_preprocessing` reads it from what other libraries
have. Whatever cannot be read raises `ImageError`, which names
the photo and the reason.
"""

from pyxai.images.batch import Images, is_model_input, to_batch
from pyxai.images.errors import ImageError, ImageErrors, PhotoFailure, PhotoWarning
from pyxai.images.labels import FolderLabels, split_folders
from pyxai.images.preprocessing import Interpolation, Preprocessing
from pyxai.images.reading import BACKGROUND, FORMATS, MAX_PIXELS, PhotoSource, open_photo
from pyxai.images.recipes import PreprocessingLike, as_preprocessing
from pyxai.images.sources import (
    SUFFIXES,
    PhotoSources,
    class_folders,
    find_photos,
    iterate_photos,
)

__all__ = [
    "BACKGROUND",
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "FolderLabels",
    "ImageError",
    "ImageErrors",
    "Images",
    "Interpolation",
    "PhotoFailure",
    "PhotoSource",
    "PhotoSources",
    "PhotoWarning",
    "Preprocessing",
    "PreprocessingLike",
    "as_preprocessing",
    "class_folders",
    "find_photos",
    "is_model_input",
    "iterate_photos",
    "open_photo",
    "split_folders",
    "to_batch",
]
