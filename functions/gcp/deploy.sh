#!/bin/sh
# Release an image, or a changed service.yaml, without Terraform:
#
#   NAME=firsttoken UPSTREAM_URL=... UPSTREAM_MODEL=... deploy.sh PROJECT IMAGE REGION...
#
# Terraform must have made what stands around the services once. Give both the same values.
set -eu

project=$1 image=$2
shift 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for region; do
    sed -e "s|\${name}|${NAME:-firsttoken}|g" -e "s|\${project}|$project|g" -e "s|\${region}|$region|g" \
        -e "s|\${image}|$image|g" -e "s|\${upstream_url}|${UPSTREAM_URL:-}|g" \
        -e "s|\${upstream_model}|${UPSTREAM_MODEL:-}|g" "$(dirname "$0")/service.yaml" |
        awk -v folder="$folder" '/^---$/ { part++; next } { print > (folder "/" part + 0 ".yaml") }'
    for file in "$folder"/*.yaml; do
        gcloud run services replace "$file" --project "$project" --region "$region" --quiet
    done
done
