"""Foreign datasets into LeRobot v3.0: LeRobot v2, RLDS/TFRecord, HDF5, annotated videos and plain folders of videos.

A format is a `Source` (episodes by index); `convert` writes any of them through the one `EpisodeWriter`.
"""

from wam.data.convert.conversion import FORMATS, Conversion, convert, detect_format, open_source
from wam.data.convert.source import Source, SourceEpisode

__all__ = ["FORMATS", "Conversion", "Source", "SourceEpisode", "convert", "detect_format", "open_source"]
