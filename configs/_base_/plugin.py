custom_imports = dict(imports=['lightvit_mm'], allow_failed_imports=False)
