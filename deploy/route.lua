-- Send every radiograph to pleura. Its own results may go there too: they are passed over.
function OnStoredInstance(id, tags, metadata, origin)
  if tags['Modality'] == 'CR' or tags['Modality'] == 'DX' then
    SendToModality(id, 'pleura')
  end
end
