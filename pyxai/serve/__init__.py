"""What every server of pyxai keeps to: whom it answers, what it takes, and for how long.

`hosts` tells requests to this machine, `limits` says the numbers, `guards` keeps to them around any
ASGI application, `connections` around uvicorn, `jobs` in the threads that do the work, and `photos`
for what was sent.
"""
