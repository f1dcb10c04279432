output "url" {
  description = "Base URL for OpenAI-compatible clients."
  value       = "https://${var.domain}/v1"
}

output "address" {
  description = "What the DNS record of the domain must point to."
  value       = google_compute_global_address.this.address
}

output "dead_subscription" {
  description = "Where `firsttoken jobs dead` finds the calls that were given up."
  value       = google_pubsub_subscription.dead.id
}
