deploy: ## Deploy both regions: make deploy PROJECT=... IMAGE=... DOMAIN=...; needs Terraform and gcloud
	terraform -chdir=functions/gcp/terraform init
	terraform -chdir=functions/gcp/terraform apply -var project=$(PROJECT) -var image=$(IMAGE) -var domain=$(DOMAIN)
