// A driver library that is none: NUM_DEVICES devices, cuInit's answer INIT_CODE, and, where they
// are defined, of each device CAPABILITIES as 90 for 9.0 (0: it cannot be asked) and the function
// ID_FUNCTION that tells an id (of the device NO_ID_OF it does not).
extern "C" {

int cuInit(unsigned) { return INIT_CODE; }
int cuDeviceGetCount(int* count) {
  *count = NUM_DEVICES;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}
int cuDeviceGetName(char* name, int size, int device) {
  const char text[] = "Fake GPU 0";
  for (int i = 0; i < size && i < static_cast<int>(sizeof(text)); ++i) name[i] = text[i];
  name[9] = static_cast<char>('0' + device / 2);
  return 0;
}

#ifdef CAPABILITIES
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const int capabilities[] = {CAPABILITIES};
  const int capability = capabilities[device];
  if (attribute == 75) *value = capability / 10;
  if (attribute == 76) *value = capability % 10;
  return (attribute == 75 || attribute == 76) && capability > 0 ? 0 : 1;
}
#endif

#ifdef ID_FUNCTION
#ifndef NO_ID_OF
#define NO_ID_OF -1
#endif
int ID_FUNCTION(unsigned char* id, int device) {
  for (int i = 0; i < 16; ++i) id[i] = static_cast<unsigned char>(i * 17);
  id[15] = static_cast<unsigned char>(0xf0 + device);
  return device == NO_ID_OF ? 1 : 0;
}
#endif
#ifdef OLDER_ID
int cuDeviceGetUuid(unsigned char* id, int) {
  for (int i = 0; i < 16; ++i) id[i] = 0;
  return 0;
}
#endif

}  // extern "C"
