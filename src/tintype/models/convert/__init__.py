"""Models, adapters and embeddings from one layout to another.

convert(source, out, to=…, dtype=…) -> Converted       whatever it is, to a file or folder
open_model(name) -> StoredModel                        a model as its files hold it
stored(model, card) -> StoredModel                     a loaded model
write_single_file(StoredModel, path)                   the original layout
write_folder(StoredModel, folder)                      diffusers' layout
"""
