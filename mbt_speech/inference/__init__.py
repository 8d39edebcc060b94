"""A checkpoint in use: sound files, frames, verification, export, HEAR and SUPERB."""
