"""From a trained model to a device: export to ONNX, sign, publish, verify, serve, roll back.

`export` makes a folder a device can run, `bundle` publishes it in a signed repository,
`runtime` is the device that trusts nothing but its root key, `server` puts it on a port.
A device imports neither torch nor mlflow nor pandas.
"""
