"""The image all components name; `pipelines.adabert.build` puts the released tag in its place.

It has "python" in its name because KFP's subprocess runner takes any other for a foreign image and warns.
"""

IMAGE = "adabert-python:0.0.0"
