"""A plain handler, as AWS's own runtime client runs it."""

import time


def handler(event, context):
    """Behave as the event (or the path of the request) asks for."""
    what = event.get("do") or event.get("rawPath", "").strip("/")
    if what == "error":
        raise ValueError("told to")
    if what == "proxy":
        return {"statusCode": 202, "headers": {"x-one": "1"}, "cookies": ["a=1"], "body": "plain"}
    if what == "binary":
        return {"statusCode": 200, "body": "/wA=", "isBase64Encoded": True}
    if what == "hang":
        time.sleep(600)
    if what == "large":
        return "x" * (7 << 20)
    return {"request": context.aws_request_id, "left": context.get_remaining_time_in_millis(), "do": what}
