// What one identity may do with the data of one storage account. Nothing here lets it change the account itself.
param accountName string
param principalId string

@description('Any of blob, queue and table.')
param services array

// Built-in roles: Storage Blob, Queue and Table Data Contributor.
var roles = {
  blob: 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
  queue: '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
  table: '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'
}

resource account 'Microsoft.Storage/storageAccounts@2025-06-01' existing = {
  name: accountName
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for service in services: {
  name: guid(account.id, principalId, roles[service])
  scope: account
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', roles[service])
  }
}]
