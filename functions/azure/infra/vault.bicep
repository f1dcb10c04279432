// The secrets that app settings refer to. The apps may read them; nobody else can before you say so.
param name string
param location string
param tags object
param readerIds array

@description('App settings that are secrets, by name.')
@secure()
param secrets object

// Built-in role: Key Vault Secrets User.
var reader = '4633458b-17de-408a-b874-0445c86b69e6'

resource vault 'Microsoft.KeyVault/vaults@2024-11-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
    publicNetworkAccess: 'Enabled'
  }
}

// A secret's name takes no underscores.
resource values 'Microsoft.KeyVault/vaults/secrets@2024-11-01' = [for secret in filter(items(secrets), s => !empty(s.value)): {
  parent: vault
  name: replace(secret.key, '_', '-')
  properties: { value: secret.value }
}]

resource readers 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for id in readerIds: {
  name: guid(vault.id, id, reader)
  scope: vault
  properties: {
    principalId: id
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', reader)
  }
}]

output name string = vault.name
