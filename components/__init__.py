"""KFP components: one file each, a typed wrapper around one function of the library.

``component`` is KFP's lightweight-component decorator with this project's image. The image holds the package
and KFP, so a step installs nothing when it starts.
"""

import functools

from kfp import dsl

from assay.project import Project

component = functools.partial(dsl.component, base_image=Project.find().image, install_kfp_package=False)
