package modules

import (
	"strconv"
	"strings"
	"sync"
)

// Imports by number get names, which the import hash is made of: libraries
// whose numbers never change are known by them. Each line begins with the
// number of its first name; "-" is a number without one.
const winsockOrdinals = `1 accept bind closesocket connect getpeername getsockname getsockopt htonl htons ioctlsocket inet_addr inet_ntoa listen ntohl ntohs recv recvfrom select send sendto setsockopt shutdown socket GetAddrInfoW GetNameInfoW WSApSetPostRoutine FreeAddrInfoW WPUCompleteOverlappedRequest WSAAccept WSAAddressToStringA WSAAddressToStringW WSACloseEvent WSAConnect WSACreateEvent WSADuplicateSocketA WSADuplicateSocketW WSAEnumNameSpaceProvidersA WSAEnumNameSpaceProvidersW WSAEnumNetworkEvents WSAEnumProtocolsA WSAEnumProtocolsW WSAEventSelect WSAGetOverlappedResult WSAGetQOSByName WSAGetServiceClassInfoA WSAGetServiceClassInfoW WSAGetServiceClassNameByClassIdA WSAGetServiceClassNameByClassIdW WSAHtonl WSAHtons gethostbyaddr gethostbyname getprotobyname getprotobynumber getservbyname getservbyport gethostname WSAInstallServiceClassA WSAInstallServiceClassW WSAIoctl WSAJoinLeaf WSALookupServiceBeginA WSALookupServiceBeginW WSALookupServiceEnd WSALookupServiceNextA WSALookupServiceNextW WSANSPIoctl WSANtohl WSANtohs WSAProviderConfigChange WSARecv WSARecvDisconnect WSARecvFrom WSARemoveServiceClass WSAResetEvent WSASend WSASendDisconnect WSASendTo WSASetEvent WSASetServiceA WSASetServiceW WSASocketA WSASocketW WSAStringToAddressA WSAStringToAddressW WSAWaitForMultipleEvents WSCDeinstallProvider WSCEnableNSProvider WSCEnumProtocols WSCGetProviderPath WSCInstallNameSpace WSCInstallProvider WSCUnInstallNameSpace WSCUpdateProvider WSCWriteNameSpaceOrder WSCWriteProviderOrder freeaddrinfo getaddrinfo getnameinfo - WSAAsyncSelect WSAAsyncGetHostByAddr WSAAsyncGetHostByName WSAAsyncGetProtoByNumber WSAAsyncGetProtoByName WSAAsyncGetServByPort WSAAsyncGetServByName WSACancelAsyncRequest WSASetBlockingHook WSAUnhookBlockingHook WSAGetLastError WSASetLastError WSACancelBlockingCall WSAIsBlocking WSAStartup WSACleanup
151 __WSAFDIsSet
500 WEP`

// In a word T<A,B the names are VarTFromA and VarTFromB.
const automationOrdinals = `2 SysAllocString SysReAllocString SysAllocStringLen SysReAllocStringLen SysFreeString SysStringLen VariantInit VariantClear VariantCopy VariantCopyInd VariantChangeType VariantTimeToDosDateTime DosDateTimeToVariantTime SafeArrayCreate SafeArrayDestroy SafeArrayGetDim SafeArrayGetElemsize SafeArrayGetUBound SafeArrayGetLBound SafeArrayLock SafeArrayUnlock SafeArrayAccessData SafeArrayUnaccessData SafeArrayGetElement SafeArrayPutElement SafeArrayCopy DispGetParam DispGetIDsOfNames DispInvoke CreateDispTypeInfo CreateStdDispatch RegisterActiveObject RevokeActiveObject GetActiveObject SafeArrayAllocDescriptor SafeArrayAllocData SafeArrayDestroyDescriptor SafeArrayDestroyData SafeArrayRedim SafeArrayAllocDescriptorEx SafeArrayCreateEx SafeArrayCreateVectorEx SafeArraySetRecordInfo SafeArrayGetRecordInfo VarParseNumFromStr VarNumFromParseNum
48 I2<UI1,I4,R4,R8,Cy,Date,Str,Disp,Bool SafeArraySetIID I4<UI1,I2,R4,R8,Cy,Date,Str,Disp,Bool SafeArrayGetIID R4<UI1,I2,I4,R8,Cy,Date,Str,Disp,Bool SafeArrayGetVartype R8<UI1,I2,I4,R4,Cy,Date,Str,Disp,Bool VarFormat Date<UI1,I2,I4,R4,R8,Cy,Str,Disp,Bool VarFormatDateTime Cy<UI1,I2,I4,R4,R8,Date,Str,Disp,Bool VarFormatNumber Bstr<UI1,I2,I4,R4,R8,Cy,Date,Disp,Bool VarFormatPercent Bool<UI1,I2,I4,R4,R8,Date,Cy,Str,Disp VarFormatCurrency VarWeekdayName VarMonthName UI1<I2,I4,R4,R8,Cy,Date,Str,Disp,Bool VarFormatFromTokens VarTokenizeFormatString VarAdd VarAnd VarDiv DllCanUnloadNow DllGetClassObject DispCallFunc VariantChangeTypeEx SafeArrayPtrOfIndex SysStringByteLen SysAllocStringByteLen DllRegisterServer VarEqv VarIdiv VarImp VarMod VarMul VarOr VarPow VarSub CreateTypeLib LoadTypeLib LoadRegTypeLib RegisterTypeLib QueryPathOfRegTypeLib LHashValOfNameSys LHashValOfNameSysA VarXor VarAbs VarFix OaBuildVersion ClearCustData VarInt VarNeg VarNot VarRound VarCmp VarDecAdd VarDecDiv VarDecMul CreateTypeLib2 VarDecSub VarDecAbs LoadTypeLibEx SystemTimeToVariantTime VariantTimeToSystemTime UnRegisterTypeLib VarDecFix VarDecInt VarDecNeg
190 Dec<UI1,I2,I4,R4,R8,Date,Cy,Str,Disp,Bool GetErrorInfo SetErrorInfo CreateErrorInfo VarDecRound VarDecCmp I2<I1,UI2,UI4,Dec I4<I1,UI2,UI4,Dec R4<I1,UI2,UI4,Dec R8<I1,UI2,UI4,Dec Date<I1,UI2,UI4,Dec Cy<I1,UI2,UI4,Dec Bstr<I1,UI2,UI4,Dec Bool<I1,UI2,UI4,Dec UI1<I1,UI2,UI4,Dec Dec<I1,UI2,UI4 I1<UI1,I2,I4,R4,R8,Date,Cy,Str,Disp,Bool,UI2,UI4,Dec UI2<UI1,I2,I4,R4,R8,Date,Cy,Str,Disp,Bool,I1,UI4,Dec UI4<UI1,I2,I4,R4,R8,Date,Cy,Str,Disp,Bool,I1,UI2,Dec
283 BSTR_UserSize BSTR_UserMarshal BSTR_UserUnmarshal BSTR_UserFree VARIANT_UserSize VARIANT_UserMarshal VARIANT_UserUnmarshal VARIANT_UserFree LPSAFEARRAY_UserSize LPSAFEARRAY_UserMarshal LPSAFEARRAY_UserUnmarshal LPSAFEARRAY_UserFree LPSAFEARRAY_Size LPSAFEARRAY_Marshal LPSAFEARRAY_Unmarshal VarDecCmpR8 VarCyAdd DllUnregisterServer OACreateTypeLib2 - VarCyMul VarCyMulI4 VarCySub VarCyAbs VarCyFix VarCyInt VarCyNeg VarCyRound VarCyCmp VarCyCmpR8 VarBstrCat VarBstrCmp VarR8Pow VarR4CmpR8 VarR8Round VarCat VarDateFromUdateEx
322 GetRecordInfoFromGuids GetRecordInfoFromTypeInfo - SetVarConversionLocaleSetting GetVarConversionLocaleSetting SetOaNoCache - VarCyMulI8 VarDateFromUdate VarUdateFromDate GetAltMonthNames I8<UI1,I2,R4,R8,Cy,Date,Str,Disp,Bool,I1,UI2,UI4,Dec I2<I8,UI8 I4<I8,UI8
360 R4<I8,UI8 R8<I8,UI8 Date<I8,UI8 Cy<I8,UI8 Bstr<I8,UI8 Bool<I8,UI8 UI1<I8,UI8 Dec<I8,UI8 I1<I8,UI8 UI2<I8,UI8
401 OleLoadPictureEx OleLoadPictureFileEx
411 SafeArrayCreateVector SafeArrayCopyData VectorFromBstr BstrFromVector OleIconToCursor OleCreatePropertyFrameIndirect OleCreatePropertyFrame OleLoadPicture OleCreatePictureIndirect OleCreateFontIndirect OleTranslateColor OleLoadPictureFile OleSavePictureFile OleLoadPicturePath UI4<I8,UI8 I8<UI8 UI8<I8,UI1,I2,R4,R8,Cy,Date,Str,Disp,Bool,I1,UI2,UI4,Dec RegisterTypeLibForUser UnRegisterTypeLibForUser`

func readOrdinals(text string) map[uint16]string {
	m := map[uint16]string{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		n, _ := strconv.Atoi(words[0]) // the texts above are numbers
		for _, w := range words[1:] {
			to, from, many := strings.Cut(w, "<")
			if !many {
				m[uint16(n)] = w
				n++
				continue
			}
			for f := range strings.SplitSeq(from, ",") {
				m[uint16(n)] = "Var" + to + "From" + f
				n++
			}
		}
	}
	return m
}

var ordinals = sync.OnceValue(func() [2]map[uint16]string {
	return [2]map[uint16]string{readOrdinals(winsockOrdinals), readOrdinals(automationOrdinals)}
})

// ordinalName is the name of an import by number.
func ordinalName(dll string, n uint16) string {
	dll = strings.ToLower(dll)
	which := -1
	switch {
	case strings.HasPrefix(dll, "ws2_32.dll"), strings.HasPrefix(dll, "wsock32.dll"):
		which = 0
	case strings.HasPrefix(dll, "oleaut32.dll"):
		which = 1
	}
	if which >= 0 {
		if name := ordinals()[which][n]; name != "" && name != "-" {
			return name
		}
	}
	return "ord" + strconv.Itoa(int(n))
}
