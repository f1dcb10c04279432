deploy: stage ## Deploy both regions; needs the Azure Developer CLI (azd) and an environment of it
	cd functions/azure && azd up
