# What MobileViT's weights were trained on: BGR in [0, 1], no mean and no deviation.
mobilevit_input = dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], bgr_to_rgb=False)
