// One Service Bus queue of jobs for all regions, and a queue of its own for dead letters with their reason.
param name string
param location string
param tags object
param queueName string
param deadQueueName string
param principalIds array

// Built-in roles: Azure Service Bus Data Receiver and Data Sender.
var roles = ['4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0', '69a216fc-b8fb-44d8-bc22-1f3c2cd27a39']
var grants = flatten(map(principalIds, id => map(roles, role => { principal: id, role: role })))

resource namespace 'Microsoft.ServiceBus/namespaces@2021-11-01' = {
  name: name
  location: location
  tags: tags
  sku: { name: 'Standard', tier: 'Standard' } // Basic keeps no message for later
  properties: { disableLocalAuth: true }
}

resource jobs 'Microsoft.ServiceBus/namespaces/queues@2021-11-01' = {
  parent: namespace
  name: queueName
  properties: {
    lockDuration: 'PT5M' // the longest there is; the Functions host renews it
    maxDeliveryCount: 20 // only the loss of the store or of the queue uses these up
    deadLetteringOnMessageExpiration: true
  }
}

resource dead 'Microsoft.ServiceBus/namespaces/queues@2021-11-01' = {
  parent: namespace
  name: deadQueueName
  properties: {
    lockDuration: 'PT1M'
    maxDeliveryCount: 2000 // to look at a dead letter counts as a delivery
  }
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for grant in grants: {
  name: guid(namespace.id, grant.principal, grant.role)
  scope: namespace
  properties: {
    principalId: grant.principal
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', grant.role)
  }
}]

output id string = namespace.id
output endpoint string = '${namespace.name}.servicebus.windows.net'
