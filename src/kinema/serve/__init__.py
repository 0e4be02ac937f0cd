"""The server: the Sora videos API, durable jobs and their workers.

settings.py    what an operator chooses
store/         the job table and everything else that is kept in a database
blobs.py       files of results and inputs: a local folder or a bucket
intake.py      a child process that decodes uploads and checks a request with them
worker.py      one process per device, which claims jobs and runs them
supervisor.py  starts workers, restarts them, and reports why they ended
api/           the HTTP side, which never imports torch
"""
