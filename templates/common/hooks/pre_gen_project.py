"""Refuse answers that could not become a working project, before anything is written.

Cookiecutter fills in the answers below and runs this with the new, empty project as its working directory. It
reads nothing but them, because tools that embed cookiecutter keep the template in different places.
"""

import json
import re
import sys

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")


def group_of(region, regions):
    """Return the residency group of a region, or None for one that the cloud is not known to have."""
    return next((group for group, names in regions.items() if region in names), None)


def problems(answers):
    """Yield what is wrong with the answers, in words for the person who gave them."""
    slug = answers["__project_slug"]
    if not re.fullmatch(r"[a-z][a-z0-9-]{1,17}[a-z0-9]", slug):
        yield (
            f"project_name: {slug!r} is made of {answers['project_name']!r};"
            " expected a name that gives 3 to 19 small letters, digits and hyphens, a letter first"
        )
    regions = answers["_regions"]
    primary, failover = answers["primary_region"], answers["failover_region"]
    unknown = False
    for question in ("primary_region", "failover_region"):
        if group_of(answers[question], regions) is None:
            unknown = True
            known = "; ".join(f"{group}: {', '.join(names)}" for group, names in regions.items())
            yield f"{question}: {answers[question]!r} is no region of {answers['_cloud']}; expected one of {known}"
    if primary == failover:
        yield f"failover_region: it must differ from primary_region, and both are {primary}"
    elif not unknown and answers["_allow_other_residency"] != "yes":
        groups = [group_of(region, regions) for region in (primary, failover)]
        if groups[0] != groups[1]:
            yield (
                f"failover_region: {failover} is in {groups[1]}, {primary} in {groups[0]}: prompts would cross"
                " a border when a region fails; choose both in one, or allow it with _allow_other_residency=yes"
            )
    if answers["shape"] == "batch-recovery" and not answers["recovery_queue"]:
        yield "recovery_queue: the shape batch-recovery is made of it; expected yes"
    if answers["recovery_queue"] and answers["cache"] == "memory":
        yield "cache: what waits in the recovery queue is kept in the managed store; expected managed"


if __name__ == "__main__":
    found = list(problems(ANSWERS))
    for problem in found:
        sys.stderr.write(f"{problem}\n")
    sys.exit(1 if found else 0)
