variable "project" {
  description = "Id of the Google Cloud project."
  type        = string
}

variable "name" {
  description = "Prefix of everything that is made, so that several deployments fit into one project."
  type        = string
  default     = "firsttoken"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,17}[a-z0-9]$", var.name))
    error_message = "name: expected 3 to 19 small letters, digits and hyphens, such as firsttoken."
  }
}

variable "regions" {
  description = "Where the services run. The first one answers the queue and holds the optional Memorystore."
  type        = list(string)
  default     = ["europe-west1", "europe-west4"]

  validation {
    condition     = length(distinct(var.regions)) >= 2 && length(distinct(var.regions)) == length(var.regions)
    error_message = "regions: expected two or more different regions, so that one can fail."
  }
}

variable "residency" {
  description = "Jurisdiction that regions, messages, objects and logs must stay in: eu, us or none."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["eu", "us", "none"], var.residency)
    error_message = "residency: expected eu, us or none."
  }

  validation {
    condition = var.residency == "none" || alltrue([
      for region in var.regions : startswith(region, var.residency == "eu" ? "europe-" : "us-")
    ]) && !contains(var.regions, "europe-west2") && !contains(var.regions, "europe-west6")
    error_message = "residency: a region is outside of it (London and Zurich are in Europe, not in the EU)."
  }
}

variable "image" {
  description = "The container image of the functions, by digest or tag; docs/deploy-gcp.md says how it is built."
  type        = string
}

variable "domain" {
  description = "Host name of the endpoint; its DNS must point to the output `address`."
  type        = string
}

variable "certificates" {
  description = "Self links of your own TLS certificates; without any, Google makes and renews one for the domain."
  type        = list(string)
  default     = []
}

variable "upstream_url" {
  description = "Base URL of an OpenAI-compatible provider; empty where firsttoken.toml names the providers."
  type        = string
  default     = ""
}

variable "upstream_model" {
  description = "The model to ask it for; empty: every name is passed on."
  type        = string
  default     = ""
}

variable "vertex" {
  description = "Whether the services may call models of Vertex AI in this project."
  type        = bool
  default     = false
}

variable "memorystore" {
  description = "Node type of a Memorystore for Valkey to make, such as SHARED_CORE_NANO; empty: bring a Redis URL."
  type        = string
  default     = ""

  validation {
    condition = contains(
      ["", "SHARED_CORE_NANO", "STANDARD_SMALL", "HIGHMEM_MEDIUM", "HIGHMEM_XLARGE"], var.memorystore
    )
    error_message = "memorystore: expected SHARED_CORE_NANO, STANDARD_SMALL, HIGHMEM_MEDIUM, HIGHMEM_XLARGE or empty."
  }
}

variable "log_days" {
  description = "How long logs of the services are kept."
  type        = number
  default     = 30

  validation {
    condition     = var.log_days >= 1 && var.log_days <= 3650
    error_message = "log_days: expected 1 to 3650."
  }
}

variable "alert_email" {
  description = "Who hears of alerts; empty: they are only shown in Cloud Monitoring."
  type        = string
  default     = ""
}
