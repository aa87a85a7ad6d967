"""Signs and checks tokens with PyJWT: a list of jobs as JSON on standard input, a list of results on
standard output. See tests/it/tokens/clients.rs for what a job holds."""

import json
import sys

import jwt


def run(job):
    try:
        if job["do"] == "sign":
            token = jwt.encode(job["claims"], job["key"], job["alg"], headers=job["header"])
            return {"token": token}
        claims = jwt.decode(job["token"], job["key"], algorithms=[job["alg"]])
        return {"claims": claims}
    except Exception as error:  # the test looks at what it is
        return {"error": f"{type(error).__name__}: {error}"}


json.dump([run(job) for job in json.load(sys.stdin)], sys.stdout)
