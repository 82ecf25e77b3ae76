"""The finished classifier as a folder: weights in safetensors, all else in one JSON, every byte accounted for.

    model.safetensors   every tensor of the model's state
    calibration.safetensors   what validation images tell of its probabilities; absent where there were none
    gallery.safetensors, gallery.json   embeddings, ids, paths and perhaps thumbnails of training images; may be absent
    added-1.safetensors, ...   classes that were added to the trained ones, one file for each time
    bundle.json         format version, class names, preprocessing, settings, versions, details, size and SHA-256 of the
                        other files, and a SHA-256 of its own content

Nothing in it can run code. Loading refuses a file that is missing, unknown, cut or changed.
"""
