export async function widgetHost(){ return undefined }
